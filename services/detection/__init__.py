"""The detection service: real jobs, from event to row, as a service would write them."""
