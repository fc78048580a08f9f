"""`penstock eval`: what a format of weights does to a model's next-token distributions."""
