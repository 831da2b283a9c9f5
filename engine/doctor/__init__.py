"""The doctor: whether name, DNS, ways out, clock, disk and files are fit to send mail with; nothing is changed."""
