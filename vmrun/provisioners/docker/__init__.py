"""Machines that are containers of Docker Engine and boot like VMs: systemd, cloud-init, sshd, a power-off that ends."""
