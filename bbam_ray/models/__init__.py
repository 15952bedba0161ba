"""Networks: a backbone, a projector and the cosine head that sits on every backbone."""

from bbam_ray.models.backbones import BACKBONES, check_backbone
from bbam_ray.models.network import Network, build_network
from bbam_ray.models.text_encoders import HubEncoder

__all__ = ["BACKBONES", "HubEncoder", "Network", "build_network", "check_backbone"]
