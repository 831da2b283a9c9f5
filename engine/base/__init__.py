"""What knows nothing of mail queues: text, time, addresses, files, threads. It uses no other room."""
