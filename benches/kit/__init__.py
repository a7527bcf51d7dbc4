"""What `compare` is made of: machine (processes, namespace, CPU, memory), pki, pairs (who is compared), load."""
