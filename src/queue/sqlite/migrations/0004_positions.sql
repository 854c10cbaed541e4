-- Positions in line are counted in memory, so nothing looks here any more, and every job that came or
-- went had to be written to it.

DROP INDEX jobs_ahead;
