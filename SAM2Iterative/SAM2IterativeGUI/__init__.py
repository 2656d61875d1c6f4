"""What a person sees of SAM2Iterative in Slicer: panels know widgets, ``scene`` knows MRML, ``worker_process`` knows processes."""
