"""What tests share: the truth by autograd, small models, graphs for ComfyUI, and programs that tests run."""
