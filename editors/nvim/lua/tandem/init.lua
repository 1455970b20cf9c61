-- Starts `agent lsp` and asks it for inline completions while the user types.
--
-- In: setup{} and the events of insert mode.
-- Out: requests to the server, calls of tandem.ghost and tandem.keys.
-- Never: shows an answer to an older text or another cursor than the present one.

local ghost = require("tandem.ghost")
local keys = require("tandem.keys")

local M = {}

---@class tandem.Config
M.config = {
  ---@type string[] the server; TANDEM_AGENT names another binary than the one on PATH
  cmd = { vim.env.TANDEM_AGENT or "agent", "lsp" },
  ---@type string? name or path of the model, handed on as TANDEM_MODEL
  model = nil,
  ---@type string? URL of an OpenAI-compatible endpoint to take ghost text from: source text goes there as you type
  endpoint = nil,
  ---@type string? which of its models
  endpoint_model = nil,
  ---@type string[]? nil is every normal buffer
  filetypes = nil,
  ---@type boolean
  enabled = true,
  ---@type integer how long typing has to rest before the server is asked
  debounce_ms = 30,
  ---@type string|false
  accept = "<Tab>",
  ---@type string|false
  accept_word = "<M-Right>",
  ---@type string|false
  accept_line = false,
  ---@type string|false
  dismiss = "<C-]>",
}

local METHOD = "textDocument/inlineCompletion"
local HINT_CRASHED = "\nhint: :Tandem restart starts it again; its last words are in "
local HINT_MISSING = "\nhint: install Tandem's agent, or name it: setup{ cmd = { '/path/to/agent', 'lsp' } }"
local INVOKED, AUTOMATIC = 1, 2
-- LSP 3.18: the answers to a request that was cancelled or outrun by an edit.
local NOT_AN_ERROR = { [-32800] = true, [-32801] = true, [-32802] = true }

local is_set_up = false
local timer = assert(vim.uv.new_timer())
---@type {client: vim.lsp.Client, id: integer}?
local in_flight
---@type integer? the client that is ours; nil once we have told it to stop
local client_id
---@type lsp.WorkDoneProgressBegin? what the server says it is doing
local progress
---@type {state: string, reason?: string}? what the server says it is about
local about
---@type string? why the server will never have ghost text
local failure
---@type string? why there is no server
local trouble
local is_crashed = false
---@type string? the last error of a request
local last_error
---@type string? the server's last message in full
local last_message

-- While the user types, a message longer than the last line would stop them with "Press ENTER".
local function say(text, level)
  text = "tandem: " .. text
  if vim.api.nvim_get_mode().mode == "n" and level >= vim.log.levels.WARN then
    vim.notify(text, level)
  else
    local line = vim.split(text, "\n")[1]
    vim.api.nvim_echo({ { vim.fn.strpart(line, 0, vim.v.echospace, true) } }, true, {})
  end
end

local function warn(text)
  say(text, vim.log.levels.WARN)
end

---LSP's MessageType to Neovim's level
local LEVELS = { vim.log.levels.ERROR, vim.log.levels.WARN, vim.log.levels.INFO, vim.log.levels.DEBUG }

local function on_message(_, params)
  -- Other editors do not say who speaks, so the server does.
  last_message = params.message:gsub("^Tandem: ", "")
  say(last_message, LEVELS[params.type] or vim.log.levels.INFO)
end

local function on_status(_, params)
  about = params
  vim.cmd.redrawstatus()
end

-- vim.lsp.get_clients leaves out a client whose server has not answered yet.
---@return vim.lsp.Client?
local function our_client()
  return client_id and vim.lsp.get_client_by_id(client_id)
end

---@return vim.lsp.Client?
local function client_of(buf)
  local client = our_client()
  return client and client.attached_buffers[buf] and client or nil
end

local function is_wanted(buf)
  if not M.config.enabled or not vim.api.nvim_buf_is_loaded(buf) then
    return false
  end
  -- An unnamed buffer has no URI that the server could tell from another's.
  if vim.bo[buf].buftype ~= "" or vim.api.nvim_buf_get_name(buf) == "" then
    return false
  end
  local filetypes = M.config.filetypes
  return filetypes == nil or vim.tbl_contains(filetypes, vim.bo[buf].filetype)
end

local function cancel()
  timer:stop()
  if in_flight then
    in_flight.client:cancel_request(in_flight.id)
    in_flight = nil
  end
end

---Hides the ghost text and forgets what was asked.
function M.dismiss()
  cancel()
  ghost.clear()
end

local function capabilities()
  local wanted = vim.lsp.protocol.make_client_capabilities()
  -- Neovim warns where the clients of a buffer differ in this, and UTF-16 is what every server has.
  wanted.general.positionEncodings = { "utf-16" }
  wanted.textDocument.inlineCompletion = { dynamicRegistration = false }
  return wanted
end

local function on_exit(code, signal, id)
  vim.schedule(function()
    if id ~= client_id then
      return -- as it was told to
    end
    M.dismiss()
    client_id, progress, failure = nil, nil, nil
    if code ~= 0 or signal ~= 0 then
      is_crashed = true
      local reason = signal ~= 0 and ("signal %d"):format(signal) or ("exit code %d"):format(code)
      local text = "the server stopped with " .. reason
      trouble = text
      -- Neovim says where the log is, in a message of its own, which would cover one before it.
      vim.schedule(function()
        vim.cmd.redraw()
        warn(text .. "; :Tandem restart starts it again")
      end)
    end
  end)
end

-- The server takes ghost text from an endpoint only where its command line says so.
local function command_line()
  local cmd = vim.list_extend({}, M.config.cmd)
  if M.config.endpoint then
    vim.list_extend(cmd, { "--endpoint", M.config.endpoint })
    if M.config.endpoint_model then
      vim.list_extend(cmd, { "--endpoint-model", M.config.endpoint_model })
    end
  end
  return cmd
end

local function attach(buf)
  -- A server that fell over is not started again by itself: it would fall over at every turn.
  if is_crashed or not is_wanted(buf) or client_of(buf) then
    return
  end
  local program = M.config.cmd[1]
  if vim.fn.executable(program) == 0 then
    local missing = ("`%s` is not on PATH"):format(program)
    if trouble ~= missing then
      warn(missing .. HINT_MISSING)
    end
    trouble = missing
    return
  end
  trouble = nil
  client_id = vim.lsp.start({
    name = "tandem",
    cmd = command_line(),
    cmd_env = { TANDEM_MODEL = M.config.model },
    root_dir = vim.fs.root(buf, ".git") or vim.fs.dirname(vim.api.nvim_buf_get_name(buf)),
    capabilities = capabilities(),
    on_exit = on_exit,
    handlers = { ["window/showMessage"] = on_message, ["tandem/status"] = on_status },
  }, {
    bufnr = buf,
    -- One server, and so one model in memory, for all of this Neovim's buffers.
    reuse_client = function(client)
      return client.id == client_id
    end,
  }) or client_id
end

local function request(buf, trigger)
  local client = client_of(buf)
  if not client or not client.initialized then
    return
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = trigger }
  local tick = vim.api.nvim_buf_get_changedtick(buf)
  local at = vim.api.nvim_win_get_cursor(0)
  local id
  local function on_answer(err, result)
    if in_flight and in_flight.id == id then
      in_flight = nil
    end
    if err then
      last_error = not NOT_AN_ERROR[err.code] and err.message or last_error
      return
    end
    last_error = nil
    local is_stale = vim.api.nvim_get_current_buf() ~= buf
      or vim.api.nvim_buf_get_changedtick(buf) ~= tick
      or not vim.deep_equal(vim.api.nvim_win_get_cursor(0), at)
      or vim.api.nvim_get_mode().mode:sub(1, 1) ~= "i"
    local item = result and (result.items or result)[1]
    if item and not is_stale then
      ghost.show(buf, item, client.offset_encoding)
      if ghost.stands() then
        client:notify("textDocument/didShowCompletion", { item = item })
      end
    end
  end
  local is_sent
  is_sent, id = client:request(METHOD, params, on_answer, buf)
  in_flight = is_sent and { client = client, id = id } or nil
end

---Asks for ghost text at the cursor now.
function M.complete()
  M.dismiss()
  request(vim.api.nvim_get_current_buf(), INVOKED)
end

local function on_typed(buf)
  if not client_of(buf) or ghost.follow() then
    return
  end
  M.dismiss()
  -- An entry picked in the popup menu is not typed text yet; the menu's own keys go first.
  if vim.fn.pumvisible() == 1 and vim.fn.complete_info({ "selected" }).selected ~= -1 then
    return
  end
  timer:start(
    M.config.debounce_ms,
    0,
    vim.schedule_wrap(function()
      if vim.api.nvim_get_current_buf() == buf and vim.api.nvim_get_mode().mode:sub(1, 1) == "i" then
        request(buf, AUTOMATIC)
      end
    end)
  )
end

---Accepts the ghost text, its next line or its next word.
---@param part? "all"|"line"|"word"
function M.accept(part)
  local buf = vim.api.nvim_get_current_buf()
  local command = ghost.accept(part or "all")
  local client = client_of(buf)
  if command and client then
    client:request("workspace/executeCommand", {
      command = command.command,
      arguments = command.arguments,
    }, nil, buf)
  end
end

---Returns whether ghost text is shown that can be accepted.
function M.is_visible()
  return ghost.stands()
end

---Returns in a line what the server does; fit for a status line.
---@return string
function M.status()
  local client = our_client()
  if not M.config.enabled then
    return "off"
  elseif not client then
    return trouble or "not started"
  elseif not client.initialized then
    return "starting"
  end
  if progress then
    local message = progress.message and (": " .. progress.message) or ""
    local percentage = progress.percentage and (" %d %%"):format(progress.percentage) or ""
    return progress.title .. message .. percentage
  end
  if not failure and about and (about.state == "slow" or about.state == "off") then
    return ("%s: %s"):format(about.state, about.reason)
  end
  return failure or last_error and ("error: " .. last_error) or "ready"
end

---Keeps the server silent for some minutes, except to who asks; 0 ends it.
---@param minutes? integer 10 if nil
function M.snooze(minutes)
  local client = our_client()
  if client then
    M.dismiss()
    client:request("workspace/executeCommand", { command = "tandem.snooze", arguments = { minutes or 10 } })
  end
end

local function attach_all()
  for _, buf in ipairs(vim.api.nvim_list_bufs()) do
    attach(buf)
  end
end

local function stop()
  M.dismiss()
  local client = our_client()
  client_id = nil
  if client then
    client:stop()
    local function is_gone()
      return vim.lsp.get_client_by_id(client.id) == nil
    end
    if not vim.wait(3000, is_gone, 20) then
      client:stop(true)
      vim.wait(1000, is_gone, 20)
    end
  end
  about, progress, failure, last_error, last_message, trouble, is_crashed = nil, nil, nil, nil, nil, nil, false
end

---Says what was shown for the last request in the buffer, or why nothing was.
function M.why()
  local client = our_client()
  if not client then
    warn(("no ghost text: %s"):format(M.status()))
    return
  end
  local buf = vim.api.nvim_get_current_buf()
  local textDocument = { uri = vim.uri_from_bufnr(buf) }
  client:request("tandem/why", { textDocument = textDocument }, function(_, last)
    print(type(last) == "table" and table.concat(last.account, "\n") or "tandem: nothing was asked for here yet")
  end, buf)
end

---Stops the server, or starts it again.
function M.toggle()
  M.config.enabled = not M.config.enabled
  if M.config.enabled then
    attach_all()
  else
    stop()
  end
end

---Starts the server anew.
function M.restart()
  stop()
  attach_all()
end

---@param args {fargs: string[]} of the command :Tandem
function M.command(args)
  local name = args.fargs[1] or "status"
  if not is_set_up then
    warn("not set up\nhint: put require('tandem').setup{} into your init.lua")
  elseif name == "status" then
    print(("tandem: %s (%s)"):format(M.status(), table.concat(command_line(), " ")))
    if last_message then
      print("its last message: " .. last_message)
    end
    if trouble then
      print(vim.trim(is_crashed and HINT_CRASHED .. vim.lsp.log.get_filename() or HINT_MISSING))
    end
  else
    M[name]()
  end
end

-- What was typed before the server was ready gets its ghost text without another key.
local function ask_again()
  local buf = vim.api.nvim_get_current_buf()
  if vim.api.nvim_get_mode().mode == "i" and not in_flight then
    on_typed(buf)
  end
end

local function on_progress(event)
  if event.data.client_id ~= client_id then
    return
  end
  local value = event.data.params.value
  if value.kind == "end" then
    progress = nil
    if value.message == "failed" then
      failure = "failed: there is no model"
    else
      ask_again()
    end
  else
    -- A report leaves out what has not changed.
    progress = vim.tbl_extend("force", value.kind == "report" and progress or { title = "busy" }, value)
  end
  vim.cmd.redrawstatus()
end

---@param config? tandem.Config
function M.setup(config)
  M.config = vim.tbl_deep_extend("force", M.config, config or {})
  is_set_up = true
  ghost.highlight()
  for part, lhs in pairs({ all = M.config.accept, word = M.config.accept_word, line = M.config.accept_line }) do
    keys.bind(lhs, "accept " .. part, function()
      M.accept(part)
    end)
  end
  keys.bind(M.config.dismiss, "dismiss", M.dismiss)
  local group = vim.api.nvim_create_augroup("tandem", {})
  local function on(events, callback)
    vim.api.nvim_create_autocmd(events, { group = group, callback = callback })
  end
  on({ "FileType", "BufEnter", "BufFilePost", "BufWritePost" }, function(event)
    attach(event.buf)
  end)
  on({ "TextChangedI", "TextChangedP", "CursorMovedI", "InsertEnter" }, function(event)
    on_typed(event.buf)
  end)
  on({ "InsertLeave", "BufLeave", "WinLeave" }, M.dismiss)
  on("ColorScheme", ghost.highlight)
  on("LspProgress", on_progress)
  on("VimLeavePre", function()
    client_id = nil -- its end is no news
  end)
  on("LspAttach", ask_again)
  attach_all()
end

return M
