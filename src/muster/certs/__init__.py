"""X.509 arithmetic: values in, values out. Time is an argument."""
