//! What a program is: types, ops, graph, text, verifier, interpreter and plan
