"""Everything with weights, and the codecs between pictures and the space of the chain."""
