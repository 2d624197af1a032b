"""The decisions of one lane, as functions of values; pure, imports the contract only."""
