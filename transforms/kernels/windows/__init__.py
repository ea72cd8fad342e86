"""What the kernel of windows is made of; `transforms.kernels.window_tables` puts it together."""
