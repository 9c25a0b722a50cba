"""In which precision a forward pass of training computes."""

import torch


def mixed(device: torch.device) -> torch.autocast:
    """Products of matrices in bfloat16 on a card, all in float32 on the CPU, whose bits stay as they are.

    For the forward pass only: losses are taken from float32 outside. bfloat16 has float32's range, so that gradients
    need no scaling (Kalamkar et al. 2019).
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
