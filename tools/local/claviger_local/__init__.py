"""The local cloud: the vendor's AWS, the customers' AWS and the notes app, on one machine and without an account."""
