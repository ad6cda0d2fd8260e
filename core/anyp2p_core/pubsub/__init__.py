"""Publish and subscribe: floodsub and gossipsub."""
