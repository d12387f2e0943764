"""Registration results as an ordinary MRML scene.

The only place where LPS becomes RAS. Every function takes a `vtkMRMLScene`; nothing here needs the Slicer
application, so the same code serves desktop Slicer, the browser app and plain Python with slicer-core.
"""
