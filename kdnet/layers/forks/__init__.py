"""Layers of known forks of Caffe, each as its fork's nets write it."""
