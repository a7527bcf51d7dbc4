//! Questions about policy beyond one request. Pure, and by the code of the data path: every answer is a set of decisions.
