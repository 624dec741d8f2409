"""textcls: a labelled CSV becomes a bundle, a fine-tuned BERT-family classifier with everything needed to use it.

Importing this package loads neither Ray nor torch; each module is imported where it is used.
"""
