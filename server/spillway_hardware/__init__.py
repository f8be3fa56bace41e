"""The GPUs that Spillway knows: one table, read by the router, the server and the deployment targets."""
