"""Parts that several papers share: layers, backbones, necks, heads."""
