"""Who is let in where: every route of a running router against every kind of caller."""
