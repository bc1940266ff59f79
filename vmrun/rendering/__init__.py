"""What is shown, as text and as JSON values. Nothing here writes to a stream: `vmrun.render` does."""
