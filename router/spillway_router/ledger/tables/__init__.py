"""Tables beside the entries: API keys, reviews, feedback and audit labels."""
