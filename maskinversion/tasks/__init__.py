"""What localized tokens are good for, one module a task."""
