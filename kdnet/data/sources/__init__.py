"""The data sources, one file each; every module here is imported when a source is looked up."""
