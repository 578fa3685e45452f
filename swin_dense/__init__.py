"""Dense prediction with Swin Transformers on PyTorch and the OpenMMLab stack."""

__version__ = "0.1.0"
