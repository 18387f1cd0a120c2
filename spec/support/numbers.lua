--- What specs of ops share: numbers to try, comparison, threads.

local assert = require "luassert"
local pg = require "perigee"

local M = {}

local state = 7

--- A leaf of shape with numbers in [-1, 1), from a fixed stream. Options: dtype, requires_grad.
function M.random(shape, options)
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    local list = {}
    for k = 1, n do
        state = (state * 1103515245 + 12345) % 2147483648
        list[k] = state / 1073741824 - 1
    end
    local t = pg.tensor(list, { dtype = options and options.dtype or pg.float32 }):reshape(shape)
    if options and options.requires_grad then t = t:detach():requires_grad_() end
    return t
end

--- Elements in row-major order.
function M.flat(t)
    return t:detach():to(t.dtype == pg.bool and pg.int64 or t.dtype):reshape(-1):totable()
end

--- Fails unless both have the same shape and |a - b| <= tolerance * (1 + |b|) everywhere (NaN equals NaN).
function M.close(actual, expected, tolerance)
    assert.are.same({ unpack(expected.shape) }, { unpack(actual.shape) })
    local a, b = M.flat(actual), M.flat(expected)
    for k = 1, #b do
        local same = math.abs(a[k] - b[k]) <= tolerance * (1 + math.abs(b[k]))
            or a[k] == b[k] or (a[k] ~= a[k] and b[k] ~= b[k])
        if not same then assert.is_true(same, ("element %d: %.17g, expected %.17g"):format(k - 1, a[k], b[k])) end
    end
end

--- pcall(f), where a device that runs late is waited for: what it found wrong comes out then.
function M.settled(f, ...)
    return pcall(function(...)
        f(...)
        if pg.get_default_device() ~= "cpu" then pg.cuda.synchronize() end
    end, ...)
end

--- Fails unless f raises an error that holds message, at the latest when its device is waited for.
function M.refuses(message, f)
    local ok, err = M.settled(f)
    assert.is_false(ok, "expected an error with: " .. message)
    assert.is_truthy(tostring(err):find(message, 1, true), "expected '" .. message .. "', got: " .. tostring(err))
end

--- Fails unless f gives the same bits (a list of tensors) with 1, 2 and 3 threads.
function M.same_at_every_thread_count(f)
    local before = pg.get_num_threads()
    local first
    for threads = 1, 3 do
        pg.set_num_threads(threads)
        local values = {}
        for k, t in ipairs(f()) do values[k] = M.flat(t) end
        if first then
            for k = 1, #first do
                for i = 1, #first[k] do
                    if first[k][i] ~= values[k][i] and first[k][i] == first[k][i] then
                        pg.set_num_threads(before)
                        error(("tensor %d, element %d: %.17g with 1 thread, %.17g with %d"):format(k, i - 1,
                            first[k][i],
                            values[k][i], threads))
                    end
                end
            end
        end
        first = first or values
    end
    pg.set_num_threads(before)
end

return M
