"""The best one-to-one assignment of rows to columns."""

import numpy as np


def best_assignment(scores):
    """Gives every row a column of its own so that the sum of scores is the largest.

    Shortest augmenting paths (R. Jonker and A. Volgenant, Computing 38, 1987): rows are
    assigned one at a time. Potentials of rows and columns keep all reduced costs at 0
    or above, and those of assigned pairs at 0.

    Args:
      scores: float [R, C], finite, R <= C.

    Returns:
      int64 [R], the column of each row.

    Raises:
      ValueError: there are more rows than columns, or a score is not finite.
    """
    costs = -np.asarray(scores, np.float64)
    num_rows, num_columns = costs.shape
    if num_rows > num_columns or not np.isfinite(costs).all():
        raise ValueError("expected finite scores [R, C] with R <= C")
    row_potentials = np.zeros(num_rows)
    column_potentials = np.zeros(num_columns)
    row_of = np.full(num_columns, -1)  # -1: the column is free
    for row in range(num_rows):
        distances = np.full(num_columns, np.inf)
        previous = np.full(num_columns, -1)  # column before it on the path, -1: `row`
        is_done = np.zeros(num_columns, bool)
        current_row, column, reached = row, -1, 0.0
        while current_row >= 0:
            # Distances over the row that the path has come to.
            reduced = costs[current_row] - row_potentials[current_row]
            through = reached + reduced - column_potentials
            is_shorter = ~is_done & (through < distances)
            distances[is_shorter], previous[is_shorter] = through[is_shorter], column
            column = int(np.argmin(np.where(is_done, np.inf, distances)))
            is_done[column], reached = True, distances[column]
            current_row = row_of[column]
        row_potentials[row] += reached
        gain = np.where(is_done, reached - distances, 0.0)
        assigned = row_of >= 0
        row_potentials[row_of[assigned]] += gain[assigned]
        column_potentials -= gain
        while column >= 0:  # each column of the path takes the row before it
            before = previous[column]
            row_of[column] = row_of[before] if before >= 0 else row
            column = before
    columns = np.flatnonzero(row_of >= 0)
    return columns[np.argsort(row_of[columns])]
