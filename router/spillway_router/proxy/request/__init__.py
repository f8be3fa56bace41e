"""What a request says: its caller, its JSON body, and the facts that routing may know."""
