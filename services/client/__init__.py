"""The client: creates jobs and changes them."""
