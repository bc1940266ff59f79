"""Looking at jobs and VMs: progress, results, output. Only reads the store."""
