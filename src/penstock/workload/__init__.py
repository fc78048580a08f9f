"""What an application asks for: the workload file, the load it means, and its promises judged.

Pure: texts are handed in, randomness is a counter-based source, nothing reads a clock or a file.
"""
