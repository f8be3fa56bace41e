"""The pages at `/`: what a router does and costs, for people in a browser."""
