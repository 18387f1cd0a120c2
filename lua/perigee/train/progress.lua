--- A progress bar on stderr: fraction, bar, rate, time left, and a postfix such as the loss.
--
--   local bar = train.progress(2000, {desc = "train", unit = "it"})
--   for step = 1, 2000 do ... bar:set_postfix {loss = loss}; bar:update(1) end
--   bar:close()
--
-- It writes nothing where stderr is not a terminal (unless asked to), and at most every `interval` seconds.

local check = require("perigee.check")
local system = require("perigee.system")

local Progress = {}
Progress.__index = Progress

--- Seconds as 07:12 or 1:02:33; "?" where unknown.
local function clock(seconds)
    if not seconds or seconds ~= seconds or seconds == math.huge then
        return "?"
    end
    seconds = math.floor(seconds + 0.5)
    local hours = math.floor(seconds / 3600)
    local rest = ("%02d:%02d"):format(math.floor(seconds / 60) % 60, seconds % 60)
    return hours > 0 and hours .. ":" .. rest or rest
end

local function value_text(value)
    if type(value) == "number" then
        return value % 1 == 0 and math.abs(value) < 1e15 and ("%d"):format(value) or ("%.4g"):format(value)
    end
    return tostring(value)
end

local function rate_text(rate, unit)
    if not rate or rate ~= rate or rate == math.huge then
        return "? " .. unit .. "/s"
    elseif rate < 1 and rate > 0 then
        return ("%.2f s/%s"):format(1 / rate, unit)
    elseif rate >= 1e4 then
        return ("%.1fk %s/s"):format(rate / 1000, unit)
    end
    return ("%.1f %s/s"):format(rate, unit)
end

--- The line as it stands now.
---@param columns integer width to fit into
---@return string
function Progress:line(columns)
    local elapsed = self._now() - self._start
    local rate = elapsed > 0 and (self.n - self._initial) / elapsed or nil
    local left = self.total and rate and rate > 0 and (self.total - self.n) / rate or nil
    local prefix = self.desc and self.desc .. ": " or ""
    local tail = (" %s%s [%s<%s, %s%s]"):format(value_text(self.n), self.total and "/" .. value_text(self.total) or "",
        clock(elapsed), self.total and clock(left) or "?", rate_text(rate, self.unit),
        self._postfix ~= "" and ", " .. self._postfix or "")
    if not self.total then
        return (prefix .. tail:sub(2)):sub(1, columns)
    end
    local fraction = self.total > 0 and math.min(self.n / self.total, 1) or 1
    prefix = ("%s%3d%% "):format(prefix, math.floor(fraction * 100))
    local width = math.max(math.min(columns - #prefix - #tail - 2, 40), 0)
    local bar = ""
    if width >= 4 then
        local filled = math.floor(fraction * width)
        bar = "|" .. ("#"):rep(filled) .. ("-"):rep(width - filled) .. "|"
    end
    return (prefix .. bar .. tail):sub(1, columns)
end

function Progress:_draw(force)
    if not self.enabled then
        return
    end
    local now = self._now()
    if not force and now - self._drawn < self.interval then
        return
    end
    self._drawn = now
    local columns = (system.columns(2) or 80) - 1
    local line = self:line(columns)
    -- Spaces wipe what a longer line left.
    self.file:write("\r", line, (" "):rep(math.max(self._width - #line, 0)))
    self.file:flush()
    self._width = #line
end

--- n more are done.
---@param n number?
function Progress:update(n)
    self.n = self.n + (n or 1)
    self:_draw(self.total ~= nil and self.n >= self.total)
end

--- Shows values behind the rate: a text, or a table of names and values (sorted by name).
---@param values string|table
function Progress:set_postfix(values)
    if type(values) == "string" then
        self._postfix = values
        return
    end
    local parts = {}
    for _, key in ipairs(check.sorted_keys(values)) do
        parts[#parts + 1] = key .. "=" .. value_text(values[key])
    end
    self._postfix = table.concat(parts, ", ")
end

function Progress:set_description(text)
    self.desc = text
end

--- Writes a line above the bar.
---@param text string
function Progress:write(text)
    if not self.enabled then
        self.log:write(text, "\n")
        self.log:flush()
        return
    end
    self.file:write("\r", (" "):rep(self._width), "\r")
    self.file:flush()
    self.log:write(text, "\n")
    self.log:flush()
    self._width = 0
    self:_draw(true)
end

--- Draws the last state and ends the line. Closing twice is harmless.
function Progress:close()
    if self._closed then
        return
    end
    self._closed = true
    if self.enabled then
        self:_draw(true)
        self.file:write("\n")
        self.file:flush()
    end
end

local DEFAULTS = {
    desc = check.none, unit = "it", file = check.none, interval = 0.1, enabled = check.none, initial = 0,
    log = check.none, clock = system.monotonic,
}

--- Makes a progress bar.
---@param total number? how many there will be; nil where unknown
---@param options table? desc, unit, file (stderr), interval (seconds between drawings), enabled (default: stderr is a
---  terminal), initial (already done, not counted in the rate), log (where :write goes, stdout), clock (seconds)
return function(total, options)
    options = check.options("progress", options, DEFAULTS)
    if total ~= nil then
        check.number("progress", "total", total, 0)
    end
    local enabled = options.enabled
    if enabled == nil then
        enabled = system.isatty(2)
    end
    return setmetatable({
        total = total, n = options.initial, desc = options.desc, unit = options.unit, file = options.file or io.stderr,
        log = options.log or io.stdout, interval = options.interval, enabled = enabled, _initial = options.initial,
        _now = options.clock, _start = options.clock(), _drawn = -math.huge, _width = 0, _postfix = "", _closed = false,
    }, Progress)
end
