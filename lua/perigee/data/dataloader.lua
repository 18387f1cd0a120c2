--- DataLoader: batches of a dataset, in order or shuffled.
--
--   local loader = data.DataLoader(dataset, {batch_size = 64, shuffle = true, seed = 1})
--   for x, y in loader:iter() do ... end          -- or: for x, y in loader() do
--
-- The order of epoch e follows from the seed and e alone, so `loader:state_dict()` taken in the middle of an epoch
-- is enough to go on with the very next batch.

local check = require("perigee.check")
local dataset = require("perigee.data.dataset")
local shuffle = require("perigee.data.shuffle")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local M = {}
local DataLoader = {}

-- Samples' values at one place, as a batch.
local function collate_values(values)
    local first = values[1]
    if parameter.is_tensor(first) then
        return pg.stack(values)
    elseif type(first) == "number" then
        -- Labels are integers where all are.
        local integral = true
        for _, value in ipairs(values) do
            integral = integral and value % 1 == 0
        end
        return pg.tensor(values, { dtype = integral and pg.int64 or pg.get_default_dtype() })
    elseif type(first) == "boolean" then
        return pg.tensor(values)
    elseif type(first) == "table" then
        local result = {}
        for key in pairs(first) do
            local column = {}
            for k, value in ipairs(values) do
                column[k] = value[key]
            end
            if #column ~= #values then
                check.fail("default_collate: %s is missing in some samples", tostring(key))
            end
            result[key] = collate_values(column)
        end
        return result
    end
    return values
end

--- Stacks samples: tensors along a new first dimension, numbers as a tensor (int64 where all are integral), texts as
-- lists, tables key by key. A sample of several values gives as many batches.
---@param samples table[] each a list of a sample's values
function M.default_collate(samples)
    local batch = {}
    for place = 1, #samples[1] do
        local values = {}
        for k, sample in ipairs(samples) do
            values[k] = sample[place]
        end
        batch[place] = collate_values(values)
    end
    return unpack(batch)
end

--- Batches in an epoch.
---@return integer
function DataLoader:len()
    local n, size = self.dataset:len(), self.batch_size
    return self.drop_last and math.floor(n / size) or math.ceil(n / size)
end

local function order_of(self)
    local n = self.dataset:len()
    if not self.shuffle then
        return parameter.outside_scopes(pg.arange, n, { dtype = pg.int64, device = "cpu" })
    end
    local order = shuffle.permutation(n, shuffle.epoch_seed(self._seed, self._epoch))
    return parameter.outside_scopes(pg.from_memory, order, { n }, pg.int64, { device = "cpu" })
end

local function fetch(self, order, start, size)
    local positions = order:narrow(0, start, size)
    if self.dataset.batch and not self.collate_fn then
        return self.dataset:batch(positions)
    end
    local samples = {}
    for k, i in ipairs(positions:totable()) do
        samples[k] = { self.dataset:get(i) }
    end
    return (self.collate_fn or M.default_collate)(samples)
end

-- The batch's tensors on the cpu, those in tables too, in pinned memory.
local function pinned(value)
    if parameter.is_tensor(value) then
        return value.device == "cpu" and value:pin_memory() or value
    elseif type(value) == "table" and getmetatable(value) == nil then
        local result = {}
        for key, item in pairs(value) do
            result[key] = pinned(item)
        end
        return result
    end
    return value
end

local function pin_all(first, ...)
    if select("#", ...) == 0 then
        return pinned(first)
    end
    return pinned(first), pin_all(...)
end

--- Goes through an epoch (from where a restored state stopped). A new call starts the next one.
---@return function iterator
function DataLoader:iter()
    local n, size, count = self.dataset:len(), self.batch_size, self:len()
    local order
    if self._finished then
        self._epoch, self._position = self._epoch + 1, 0
    elseif self._restored then
        self._restored = false
    elseif self._started then   -- the one before was left in the middle
        self._epoch, self._position = self._epoch + 1, 0
    end
    self._started, self._finished = true, false
    local epoch = self._epoch
    return function()
        if self._epoch ~= epoch then
            check.fail("DataLoader: this epoch was abandoned when another began")
        end
        if self._position >= count then
            self._finished = true
            return nil
        end
        order = order or order_of(self)
        local start = self._position * size
        self._position = self._position + 1
        if self.pin_memory then
            return pin_all(fetch(self, order, start, math.min(size, n - start)))
        end
        return fetch(self, order, start, math.min(size, n - start))
    end
end

--- Where the loader stands: {seed, epoch, position}; position is the number of batches given in this epoch.
function DataLoader:state_dict()
    return { seed = self._seed, epoch = self._epoch, position = self._position, finished = self._finished }
end

--- The next iter() goes on where the state was taken.
function DataLoader:load_state_dict(state)
    if type(state) ~= "table" or type(state.epoch) ~= "number" or type(state.position) ~= "number" then
        check.fail("DataLoader: expected what its state_dict gave, got %s", check.describe(state))
    end
    self._seed, self._epoch, self._position = state.seed, state.epoch, state.position
    self._finished, self._restored, self._started = state.finished, not state.finished, state.finished
end

local instances = {
    __index = DataLoader,
    __call = function(self) return self:iter() end,
    __tostring = function(self)
        return ("DataLoader(batch_size=%d, shuffle=%s, drop_last=%s, batches=%d)"):format(self.batch_size,
            tostring(self.shuffle), tostring(self.drop_last), self:len())
    end,
}

--- dataset, batch_size: integer = 1, shuffle: bool = false, *, drop_last: bool = false, collate_fn: function? (a list
-- of samples, each a list of its values -> the batch), pin_memory: bool = false (for x:to("cuda", {non_blocking =
-- true})), seed: integer? (default: drawn from the engine's generator)
function M.DataLoader(...)
    local o = check.arguments("DataLoader", { "dataset", "batch_size", "shuffle" }, {
        dataset = check.none, batch_size = 1, shuffle = false, drop_last = false, collate_fn = check.none,
        pin_memory = false, seed = check.none,
    }, ...)
    if not dataset.is_dataset(o.dataset) then
        check.fail("DataLoader: expected a dataset (with len and get), got %s", check.describe(o.dataset))
    elseif o.collate_fn ~= nil and type(o.collate_fn) ~= "function" then
        check.fail("DataLoader: collate_fn must be a function, got %s", check.describe(o.collate_fn))
    elseif type(o.pin_memory) ~= "boolean" then
        check.fail("DataLoader: pin_memory must be a boolean, got %s", check.describe(o.pin_memory))
    end
    return setmetatable({
        dataset = o.dataset, shuffle = o.shuffle, drop_last = o.drop_last, collate_fn = o.collate_fn,
        pin_memory = o.pin_memory, batch_size = check.integer("DataLoader", "batch_size", o.batch_size, 1),
        _seed = o.seed and check.integer("DataLoader", "seed", o.seed) or (o.shuffle and dataset.draw_seed() or 0),
        _epoch = 0, _position = 0, _started = false, _finished = false, _restored = false,
    }, instances)
end

return M
