-- Fixed cost is a few rows a day among very many: found without reading the others.
CREATE INDEX entries_fixed ON entries (ts, amount_nano, gpu_us) WHERE kind = 'gpu_hour';
