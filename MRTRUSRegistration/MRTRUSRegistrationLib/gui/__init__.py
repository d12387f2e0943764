"""The panel of the Slicer module: everything between its widgets and `mrml/`.

Only this folder and the module file know Qt and the Slicer application; what can do without them, does.
Nothing heavy is imported before it is used.
"""
