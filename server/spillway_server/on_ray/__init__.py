"""The engine on a Ray cluster: what runs in a replica (replica.py), and what Ray Serve is told (application.py)."""
