--- Datasets: anything with `len()` and `get(i)`, i from 0, which gives one sample (one or more values). A dataset may
-- also have `batch(indices)`, indices an int64 tensor, which gives a whole batch at once.

local check = require("perigee.check")
local shuffle = require("perigee.data.shuffle")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local M = {}

--- Is the value a dataset?
function M.is_dataset(value)
    return type(value) == "table" and type(value.len) == "function" and type(value.get) == "function"
end

local function checked(self, i)
    local n = self:len()
    if type(i) ~= "number" or i % 1 ~= 0 or i < -n or i >= n then
        check.fail("index %s is out of range for a dataset of %d", tostring(i), n)
    end
    return i % n
end

-- ---- TensorDataset ----

local TensorDataset = {}
TensorDataset.__index = TensorDataset

--- Samples are the tensors' rows.
---@param ... Tensor (N, *) each, of one N
function M.TensorDataset(...)
    local tensors = { ... }
    if #tensors == 0 then
        check.fail("TensorDataset: expected at least one tensor")
    end
    for k = 1, select("#", ...) do
        local t = tensors[k]
        if not parameter.is_tensor(t) then
            check.fail("TensorDataset: argument %d must be a tensor, got %s", k, check.describe(t))
        elseif t:dim() == 0 or t:size(0) ~= tensors[1]:size(0) then
            check.fail("TensorDataset: size mismatch between tensors: argument %d is [%s], the first [%s]", k,
                table.concat(t.shape, ", "), table.concat(tensors[1].shape, ", "))
        end
        parameter.keep(t)
    end
    return setmetatable({ tensors = tensors }, TensorDataset)
end

function TensorDataset:len()
    return self.tensors[1]:size(0)
end

function TensorDataset:get(i)
    i = checked(self, i)
    local rows = {}
    for k, t in ipairs(self.tensors) do
        rows[k] = t[i]
    end
    return unpack(rows)
end

function TensorDataset:batch(indices)
    local rows = {}
    for k, t in ipairs(self.tensors) do
        rows[k] = t:index_select(0, indices:to(t.device))
    end
    return unpack(rows)
end

-- ---- Subset ----

local Subset = {}
Subset.__index = Subset

--- The samples of a dataset at the given positions.
---@param dataset table
---@param indices integer[]|Tensor from 0
function M.Subset(dataset, indices)
    if not M.is_dataset(dataset) then
        check.fail("Subset: expected a dataset, got %s", check.describe(dataset))
    end
    if not parameter.is_tensor(indices) then
        if type(indices) ~= "table" then
            check.fail("Subset: expected a list of indices, got %s", check.describe(indices))
        end
        local n = dataset:len()
        for k, i in ipairs(indices) do
            check.integer("Subset", ("indices[%d]"):format(k), i, 0, n - 1)
        end
        indices = #indices > 0 and pg.tensor(indices, { dtype = pg.int64 }) or pg.zeros(0, { dtype = pg.int64 })
    end
    parameter.keep(indices)
    return setmetatable({ dataset = dataset, indices = indices }, {
        __index = function(self, key)
            -- batch exists where the dataset has one.
            if key == "batch" and not self.dataset.batch then
                return nil
            end
            return Subset[key]
        end,
    })
end

function Subset:len()
    return self.indices:size(0)
end

function Subset:get(i)
    return self.dataset:get(self.indices[checked(self, i)]:item())
end

function Subset:batch(positions)
    return self.dataset:batch(self.indices:index_select(0, positions))
end

-- ---- random_split ----

--- Splits a dataset at random into parts that do not overlap.
---@param dataset table
---@param lengths number[] sizes that add up to the dataset's, or fractions that add up to 1
---@param options table? seed (default: drawn from the engine's generator)
---@return table[] subsets
function M.random_split(dataset, lengths, options)
    local o = check.options("random_split", options, { seed = check.none })
    if not M.is_dataset(dataset) then
        check.fail("random_split: expected a dataset, got %s", check.describe(dataset))
    elseif type(lengths) ~= "table" or #lengths == 0 then
        check.fail("random_split: expected a list of lengths, got %s", check.describe(lengths))
    end
    local n, total = dataset:len(), 0
    for k, length in ipairs(lengths) do
        total = total + check.number("random_split", ("lengths[%d]"):format(k), length, 0)
    end
    local sizes = {}
    if math.abs(total - 1) < 1e-9 and n ~= 1 then
        local rest = n
        for k, fraction in ipairs(lengths) do
            sizes[k] = math.floor(n * fraction)
            rest = rest - sizes[k]
        end
        for k = 1, rest do   -- what rounding left, one each from the first on
            local at = (k - 1) % #sizes + 1
            sizes[at] = sizes[at] + 1
        end
    else
        for k, length in ipairs(lengths) do
            sizes[k] = check.integer("random_split", ("lengths[%d]"):format(k), length, 0)
        end
        if total ~= n then
            check.fail("random_split: the lengths add up to %d, the dataset has %d", total, n)
        end
    end
    local seed = o.seed or M.draw_seed()
    local order = shuffle.permutation(n, seed)
    local parts, at = {}, 0
    for k, size in ipairs(sizes) do
        parts[k] = M.Subset(dataset, pg.from_memory(order + at, { size }, pg.int64))
        at = at + size
    end
    return parts
end

--- A seed from the engine's generator.
---@return integer
function M.draw_seed()
    return pg.randint(0, 2 ^ 31, { 1 }):item()
end

return M
