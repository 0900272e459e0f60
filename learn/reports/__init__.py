"""What learning did, and what an energy looks like: text, pages and figures."""
