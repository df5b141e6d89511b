// Passes changes of the prompt's text from the server on to web/prompt.js.
watch('value', () => window.glassbox.emit('draft', props.value ?? {}));
