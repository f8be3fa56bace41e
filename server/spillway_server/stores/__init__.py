"""Models in object stores: pushed from the machine that converted them, and fetched by the one that serves them."""
