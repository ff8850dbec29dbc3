"""The method of Li, Yu, Wang and Heng (AAAI 2020): networks, losses, image alignment, ensemble."""
