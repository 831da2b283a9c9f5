"""The mail log: what happens to mail, a line for each thing, in the words that readers of mail logs know."""
