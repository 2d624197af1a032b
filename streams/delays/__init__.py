"""The process that turns the timing wheel in the delay topics."""
