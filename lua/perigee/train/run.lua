--- A run's folder: config.json, metrics.jsonl, TensorBoard event files, and whatever the script puts beside them.

local check = require("perigee.check")
local json = require("perigee.json")
local system = require("perigee.system")
local tensorboard = require("perigee.train.tensorboard")

local Run = {}
Run.__index = Run

--- The path of a file in the folder.
---@param name string
function Run:path(name)
    return self.folder .. "/" .. name
end

--- Writes config.json.
---@param settings table
function Run:config(settings)
    local ok, why = system.write_file(self:path("config.json"), json.encode(settings, "  ") .. "\n")
    if not ok then
        check.fail("Run: %s", why)
    end
end

--- One line of metrics.jsonl and one scalar event a value: {"step":10,"time":...,"loss":2.5}.
-- NaN and infinities are the strings "NaN", "Infinity", "-Infinity".
---@param step integer
---@param values table name -> number
function Run:log(step, values)
    check.integer("Run:log", "step", step)
    if self._closed then
        check.fail("Run:log: the run %s is closed", self.folder)
    end
    local row = { step = step, time = system.time() }
    for name, value in pairs(values) do
        if type(name) ~= "string" or name == "step" or name == "time" then
            check.fail("Run:log: a metric cannot be called %s", tostring(name))
        elseif type(value) ~= "number" then
            check.fail("Run:log: %s must be a number, got %s", name, check.describe(value))
        end
        row[name] = value
    end
    local ok, why = self._metrics:write(json.encode(row), "\n")
    ok = ok and self._metrics:flush()
    if not ok then
        check.fail("Run:log: cannot write %s: %s", self:path("metrics.jsonl"), why or "the disk is full?")
    end
    if self.events then
        for _, name in ipairs(check.sorted_keys(values)) do
            self.events:add_scalar(name, values[name], step)
        end
        self.events:flush()
    end
end

function Run:close()
    if not self._closed then
        self._closed = true
        self._metrics:close()
        if self.events then
            self.events:close()
        end
    end
end

local NUMBERS = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

--- The rows of a metrics.jsonl: a list of tables. A last line cut short by an interruption is left out; any other bad
-- line is an error that names it.
---@param path string
---@return table[]
local function read_metrics(path)
    local text, why = system.read_file(path)
    if not text then
        check.fail("read_metrics: %s", why)
    end
    local rows, number = {}, 0
    for line, ending in text:gmatch("([^\n]*)(\n?)") do
        number = number + 1
        if line ~= "" then
            local ok, row = pcall(json.decode, line)
            if not ok and ending == "\n" then
                check.fail("read_metrics: %s, line %d: %s", path, number, row)
            end
            if ok then
                for key, value in pairs(row) do
                    row[key] = NUMBERS[value] or value
                end
                rows[#rows + 1] = row
            end
        end
    end
    return rows
end

-- Rewrites the metrics without what comes after a step: an interrupted run goes on from its checkpoint, not from its
-- end.
local function drop_after(path, step)
    if not system.exists(path) then
        return
    end
    local kept = {}
    for _, row in ipairs(read_metrics(path)) do
        if type(row.step) == "number" and row.step <= step then
            kept[#kept + 1] = json.encode(row) .. "\n"
        end
    end
    local ok, why = system.write_file(path, table.concat(kept))
    if not ok then
        check.fail("Run: %s", why)
    end
end

local M = { read_metrics = read_metrics }

--- Opens a run's folder, which is made where it is missing.
---@param folder string
---@param options table? resume_step: keep the metrics up to that step and append (default: start anew);
---  tensorboard: write event files too (default true)
function M.Run(folder, options)
    options = check.options("Run", options, { resume_step = check.none, tensorboard = true })
    if type(folder) ~= "string" or folder == "" then
        check.fail("Run: expected a folder's path, got %s", check.describe(folder))
    end
    local ok, why = system.mkdir(folder)
    if not ok then
        check.fail("Run: %s", why)
    end
    local self = setmetatable({ folder = folder, _closed = false }, Run)
    local path = self:path("metrics.jsonl")
    if options.resume_step then
        drop_after(path, options.resume_step)
    end
    local message
    self._metrics, message = io.open(path, options.resume_step and "ab" or "wb")
    if not self._metrics then
        check.fail("Run: cannot write %s", message)
    end
    self.events = options.tensorboard and tensorboard.SummaryWriter(folder) or nil
    return self
end

return M
