"""Kademlia: finding peers, values and providers by walking a network that nobody runs."""
