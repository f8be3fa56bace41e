"""What a request says: body, facts and caller."""
