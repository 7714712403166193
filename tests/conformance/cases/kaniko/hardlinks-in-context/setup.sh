mkdir context/d; ln context/a context/b; ln context/a context/d/c; ln context/z context/d/z
