//! Graph to graph: gradient, simplification, fusion, layout, schedule and memory
